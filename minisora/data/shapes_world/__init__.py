"""The world of moving shapes: its grammar, its layout, its drawing, its clips."""
