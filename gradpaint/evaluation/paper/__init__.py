"""The paper's tables and figures: their layouts, the numbers it prints, and what runs and draws them."""
