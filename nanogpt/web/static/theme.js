// The button that switches between light and dark, and remembers the choice.
// It isn't a module: the theme must be known before the page is drawn.
"use strict";
{
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const remembered = (value) => {
    try {
      if (value) localStorage.setItem("theme", value);
      return localStorage.getItem("theme");
    } catch {
      return null; // storage may be turned off
    }
  };
  const chosen = remembered();
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector("[data-switch]");
    button.hidden = false;
    button.addEventListener("click", () => {
      const now = root.dataset.theme || (dark.matches ? "dark" : "light");
      root.dataset.theme = now === "dark" ? "light" : "dark";
      remembered(root.dataset.theme);
      // Canvases must be drawn again.
      document.dispatchEvent(new Event("theme"));
    });
  });
  dark.addEventListener("change", () => document.dispatchEvent(new Event("theme")));
}
