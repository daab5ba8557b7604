"""One module per engine: from which cases its constants are fitted."""
