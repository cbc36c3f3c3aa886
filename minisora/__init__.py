"""minisora: a miniature Sora that learns text-to-video on a laptop, and an exact account of what it costs.

Importing this package loads nothing heavy; `minisora.pipelines`, `minisora.models` and the rest import
torch when they are asked for.
"""

__version__ = "0.1.0"
