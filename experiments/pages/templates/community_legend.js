/* Every community's mark and number: pointed at, its features are lit. */

function communityLegend(view, run) {
  const entry = (nodes, name, count) => {
    if (!nodes.length) return [];
    const made = named(element("button", {type: "button", title: `community ${name}: ${count} features`}, [swatch(nodes[0]), name]),
      `Show community ${name}, ${count} features`);
    made.dataset.community = name;
    for (const begin of ["mouseenter", "focus"]) made.addEventListener(begin, () => view.mark(nodes));
    for (const end of ["mouseleave", "blur"]) made.addEventListener(end, () => view.mark(null));
    return [made];
  };
  const members = new Map();
  for (const node of run.nodes) if (!node.constant) {
    const key = node.look.number ?? NO_COMMUNITY;
    if (!members.has(key)) members.set(key, []);
    members.get(key).push(node);
  }
  return element("div", {className: "communities"}, [
    ...run.data.communities.flatMap(({number, size}) => entry(members.get(number) ?? [], String(number), size)),
    ...entry(members.get(NO_COMMUNITY) ?? [], "none", members.get(NO_COMMUNITY)?.length)]);
}
