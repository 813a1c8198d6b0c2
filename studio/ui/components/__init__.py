"""What the page draws itself. Each component is a static template that is filled through textContent only."""
