"""An avatar to watch, touch and talk to: a page in the browser, and what feeds it."""
