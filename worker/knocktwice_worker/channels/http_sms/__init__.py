"""SMS through any provider with an HTTP interface, as the operators' file of providers describes it."""
