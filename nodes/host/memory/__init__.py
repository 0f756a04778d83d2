"""How guided steps make do with the memory that there is."""
