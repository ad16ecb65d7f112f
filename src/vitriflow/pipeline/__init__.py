"""What happens next to data: templates, tasks, coordinator, workers."""
