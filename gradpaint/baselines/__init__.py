"""The paper's rivals and oracles, one file a method. `gradpaint.methods` lists them; nothing is imported before."""
