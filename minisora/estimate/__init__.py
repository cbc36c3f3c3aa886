"""The compute report, audited: what training and serving a Sora costs, from inputs that anyone can change.

    units         quantities that refuse to be added to another unit
    cost          MACs of one transformer pass from its shape
    assumptions   every input by name, with range, unit, source and status
    model         the estimate itself: pure functions from assumptions to results
    uncertainty   intervals and sensitivity by Monte Carlo
    claims        the published numbers, recomputed, corrected and measured
    evidence      what this project measured: calibration, a toy run
    video_models  what other video models disclosed
    backtest      the same method against them (backtest_row: one prediction)
    bridge        from one preset to another in factors
    labels        words for people
    figures       the drawings (figures_*, figure_style, figure_words)
    page          the page, with the model once more in model.js
    report        what `minisora report` writes

No module here imports torch: the report of a laptop without it takes seconds.
"""
