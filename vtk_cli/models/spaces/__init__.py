"""The search spaces: what an architecture is, what it costs, and the networks it stands for.

    from vtk_cli.models.spaces.catalog import space_named

    space = space_named("darts")
    genes = space.parse("genas-flatness-cifar100")
    shape = space.shape("imagenet", classes=1000, width=46)
    space.cost(genes, shape)                        # multiply-accumulates and parameters, by arithmetic
    network = space.network(genes, shape)           # the network alone
    supernet = space.supernet(space.shape("supernet", classes=10))
    logits = supernet(images, genes)                # the same architecture as a path of the shared weights

An architecture is a tuple of integers, its genes. What a space knows of genes and of cost needs no torch; the networks
are built in the modules whose names end in `_supernet`, `_network` or `_operations`.
"""
