/* Groups of features under names that the reader gives. */

// `nodes()`: the features that can be put into a group now; `change(groups)`: the reader's new groups; `go(node)`, `pin(nodes)`, `mark(nodes)`.
function groupsSection(run, groups, {nodes, change, go, pin, mark}) {
  const same = (one, other) => one[0] === other[0] && one[1] === other[1];
  const merged = (features, more) => [...features, ...more.filter((one) => !features.some((other) => same(one, other)))];
  const replaced = (group, by) => change(groups.flatMap((one) => (one === group ? by : [one])));
  const found = nodes(), addresses = found.map(addressOf);

  const chip = (group, feature) => {
    const node = run.find(...feature), text = `${feature[0]} ${feature[1]}: ${node.label}`;
    return element("li", {}, [actionButton(node.label, `Go to ${text}`, () => go(node)),
      actionButton("×", `Take ${text} out of ${group.name}`, () =>
        replaced(group, [{...group, features: group.features.filter((one) => !same(one, feature))}]))]);
  };
  const card = (group) => {
    const name = named(element("input", {type: "text", value: group.name, maxLength: 80}), "The group's name");
    name.addEventListener("change", () => {
      const text = name.value.trim();
      if (!text || groups.some((one) => one !== group && one.name === text)) {
        say(text ? `There is a group “${text}” already.` : "A group needs a name.", true);
        name.value = group.name;
      } else replaced(group, [{...group, name: text}]);
    });
    const add = actionButton("Add pinned", `Add the pinned features to ${group.name}`, () =>
      replaced(group, [{...group, features: merged(group.features, addresses)}]));
    add.disabled = !found.length;
    const made = element("div", {className: "group"}, [
      element("div", {className: "group-head tools"}, [name, add,
        actionButton("Pin", `Pin all features of ${group.name}`, () => pin(group.features.map((one) => run.find(...one)))),
        actionButton("×", `Remove the group ${group.name}`, () => replaced(group, []))]),
      element("ul", {className: "chips"}, group.features.map((feature) => chip(group, feature)))]);
    made.dataset.group = group.name;
    const all = () => group.features.map((one) => run.find(...one));
    made.addEventListener("mouseenter", () => mark(all()));
    made.addEventListener("mouseleave", () => mark(null));
    return made;
  };

  const name = named(element("input", {type: "text", placeholder: "name of a new group", maxLength: 80}), "Name of a new group");
  const make = () => {
    const text = name.value.trim();
    if (!text) return say("A group needs a name.", true);
    if (groups.some((one) => one.name === text)) return say(`There is a group “${text}” already.`, true);
    change([...groups, {name: text, features: addresses}]);
  };
  name.addEventListener("keydown", (event) => { if (event.key === "Enter") make(); });
  const create = actionButton(found.length ? `Group pinned (${found.length})` : "New group", "Make a group of the pinned features", make, "tool");
  return [element("h3", {textContent: "Groups"}), ...groups.map(card),
    element("div", {id: "new-group"}, [name, create])];
}
