const byId = (id) => document.getElementById(id);
const svgNamespace = "http://www.w3.org/2000/svg";
const element = (name, properties = {}, children = []) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};
const named = (made, text) => { made.setAttribute("aria-label", text); return made; };
const actionButton = (text, name, act, className = "") => {
  const made = named(element("button", {type: "button", textContent: text, title: name, className}), name);
  made.addEventListener("click", act);
  return made;
};
const digits = (number, n = 4) => String(Number(number.toPrecision(n)));
const grouped = (number) => number.toLocaleString("en");
const percent = (share) => (Math.abs(share) < 0.0005 ? "0 %" : `${(100 * share).toFixed(Math.abs(share) < 0.0995 ? 1 : 0)} %`);
// Not `Math.max(...numbers)`, which fails for as many as a vocabulary has tokens.
const largestOf = (numbers) => numbers.reduce((most, one) => Math.max(most, one), Number.MIN_VALUE);
const isNarrow = () => matchMedia("(max-width: {{ narrow }}px)").matches;

// A variable of the theme as a colour that a canvas understands, whatever the scheme.
const themeColour = (() => {
  const probe = element("span", {hidden: true});
  return (colour) => {
    if (!probe.isConnected) document.body.append(probe);
    probe.style.color = colour;
    return getComputedStyle(probe).color;
  };
})();

function svg(name, attributes, text) {
  const made = document.createElementNS(svgNamespace, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
