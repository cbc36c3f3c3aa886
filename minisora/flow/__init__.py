"""How noise becomes video: the noise convention, the objectives, and the conditioning on known frames."""
