const byId = (id) => document.getElementById(id);
const svgNamespace = "http://www.w3.org/2000/svg";
const element = (name, properties = {}, children = []) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};
const digits = (number) => String(Number(number.toPrecision(4)));
const grouped = (number) => number.toLocaleString("en");

const NO_COMMUNITY = -1;
// Okabe and Ito's colour-blind-safe palette without black; its yellow darkened, to be seen on white.
const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#c9b800"];

// Communities, the largest first, from the community of every feature, and the colour of each.
function rankCommunities(memberships) {
  const sizes = new Map();
  for (const community of memberships)
    if (community !== NO_COMMUNITY) sizes.set(community, (sizes.get(community) || 0) + 1);
  const ordered = [...sizes.keys()].sort((a, b) => sizes.get(b) - sizes.get(a) || a - b);
  const rank = new Map(ordered.map((community, index) => [community, index]));
  const colourOf = (community) => (rank.has(community) ? PALETTE[rank.get(community) % PALETTE.length] : "var(--none)");
  // There are more communities than colours can tell apart: the second round of the palette is rings, not discs.
  const isRing = (community) => (rank.get(community) ?? 0) >= PALETTE.length;
  return {sizes, ordered, rank, colourOf, isRing};
}
