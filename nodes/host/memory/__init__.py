"""How guided steps get by with the memory there is."""
