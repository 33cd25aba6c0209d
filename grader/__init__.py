"""The instructor's room: lessons are built and classes graded here. Nothing in `lessonlib` imports it."""
