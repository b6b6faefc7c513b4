"""Tabular benchmarks: files that hold the accuracy of many trained architectures, which `vtk search rank` compares to.

    from vtk_cli.search.benchmarks.joining import match_space, truths
    from vtk_cli.search.benchmarks.opening import open_benchmark

    benchmark = open_benchmark(Path("NATS-tss-v1_0-3ffb9-simple"))
    setting = benchmark.choose(dataset="cifar100")
    match = match_space(space, benchmark)
    genes = match.draw(200, seed=0)
    accuracies = truths(benchmark, match, genes, setting)

Pickles are read without importing or calling anything that they name (`inert_pickle.py`).
"""
