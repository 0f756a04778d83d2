"""The paper: its losses, its gradient, its step, and the plan of a run. Imports torch and nothing else of ours."""
