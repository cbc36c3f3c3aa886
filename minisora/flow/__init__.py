"""How noise becomes video: the noise convention, the objective, known frames, noise levels and the sampling loop."""
