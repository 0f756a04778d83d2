"""The paper's rivals and oracles, one file a method. `sampling.methods` lists them; nothing is imported before."""
