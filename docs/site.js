// What axe finds wrong with the theme: frames of the buttons that copy code are landmarks without a name, and code and
// tables that are wider than their box cannot be scrolled with the keyboard.
const mend = () => {
  document.querySelectorAll("nav.md-code__nav:not([role])").forEach((e) => e.setAttribute("role", "none"));
  document.querySelectorAll(":is(pre > code, .md-typeset__scrollwrap):not([tabindex])").forEach((e) => {
    if (e.scrollWidth > e.clientWidth) e.setAttribute("tabindex", "0");
  });
};
new MutationObserver(mend).observe(document.documentElement, {
  attributes: true,
  attributeFilter: ["tabindex"],
  childList: true,
  subtree: true,
});
mend();
