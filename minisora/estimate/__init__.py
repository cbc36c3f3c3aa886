"""The compute report, audited: what training and serving a Sora costs, from inputs that anyone can change.

    units         quantities that refuse to be added to another unit
    cost          MACs of one transformer pass from its shape
    assumptions   every input by name, with range, unit, source and status
    model         the estimate itself: pure functions from assumptions to results
    uncertainty   intervals and sensitivity by Monte Carlo
    claims        the published numbers, recomputed, corrected and measured
    evidence      what this project measured: calibration, a toy run
    backtest      the same method against models that disclosed their cost
    figures, page, report   what is written to disk

No module here imports torch: the report of a laptop without it takes seconds.
"""
