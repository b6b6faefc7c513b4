"""Networks that more than one subcommand uses: names to networks, and their weights."""
