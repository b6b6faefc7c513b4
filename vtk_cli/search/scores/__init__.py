"""What an architecture is judged by: flatness of the loss around shared weights, the loss, accuracy, the angle.

    from vtk_cli.search.scores.scorer import Images, Scorer
    from vtk_cli.search.scores.settings import ScoreSettings
    from vtk_cli.search.scores.combination import combination
    from vtk_cli.search.scores.values import metrics_of

    scorer = Scorer(supernet, initial_state, Images(calibration, images, labels), ScoreSettings())
    measured = scorer.measure(genes, {"noise", "angle"})        # every loss there is: plain numbers, to be kept
    metrics = metrics_of(measured, scorer.settings)             # {"flatness": ..., "loss": ..., "angle": ...}
    scores = combination("angle+flatness", scorer.settings).scores([metrics])

Measuring is dear and is done once; scores are computed from what was measured, without a network.
"""
