"""Whole runs without a host: GradPaint, the methods that it is compared with, and what they share."""
