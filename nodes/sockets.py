"""The pack's own socket types: objects that one node outputs and another takes as input."""

from comfy_api.latest import io

CATEGORY = "GradPaint"

# Carries a gradpaint.method.settings.AlignmentSettings.
Alignment = io.Custom("GRADPAINT_ALIGNMENT")

# Carries a nodes.host.report.record.RunRecord or LiveRecord.
Record = io.Custom("GRADPAINT_RECORD")

# Carries a gradpaint.method.settings.MemorySettings.
Memory = io.Custom("GRADPAINT_MEMORY")

# Carries a gradpaint.method.settings.GuideSchedule.
Schedule = io.Custom("GRADPAINT_SCHEDULE")

# Carries a gradpaint.image.stitch.Stitch.
Stitch = io.Custom("GRADPAINT_STITCH")
