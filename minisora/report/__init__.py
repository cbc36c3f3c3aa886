"""The compute report, audited: what training and serving a Sora costs, from inputs that anyone can change.

    units            quantities that refuse to be added to another unit
    cost             MACs of one transformer pass from its shape
    model            the estimate itself: pure functions from assumptions to results
    assumptions      every input by name, with range, unit, source and status
    sensitivity      intervals and influences by Monte Carlo; steps from one preset to another
    claims           the published numbers, recomputed, corrected and measured
    measured_inputs  what this project measured: calibration, a toy run
    ladder_law       what a scaling ladder says of the report's size
    video_models     what other video models disclosed: shapes, seconds, memory (docs/explanation/memory.md)
    backtest         the same method against them
    words            results, units and numbers for people
    figures          which there are (rows, curves, style: the drawings)
    page             the page: HTML, its controls, and the model as JavaScript
    compose          what `minisora report` writes

No module here imports torch: the report of a laptop without it takes seconds.
"""
