"""Work that is made of commands of the tools, done once each: what the demo and the ablations are made of."""
