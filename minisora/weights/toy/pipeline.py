"""Where diffusers finds the pipeline of this folder: in the installed package minisora."""

from minisora.pipelines.pipeline import MiniSoraPipeline

__all__ = ["MiniSoraPipeline"]
