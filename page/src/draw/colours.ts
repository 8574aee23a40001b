// The style sheet's colours for a canvas, which cannot read `light-dark()` by itself.

let known = new Map<string, string>();
let probe: HTMLElement | null = null;

/** Returns the present value of a custom property of the style sheet, such as "--ok". */
export function colour(name: string): string {
  let value = known.get(name);
  if (value === undefined) {
    if (!probe) {
      probe = document.createElement("span");
      probe.hidden = true;
      document.body.append(probe);
    }
    probe.style.color = `var(${name})`;
    value = getComputedStyle(probe).color;
    known.set(name, value);
  }
  return value;
}

/** Clears the cached colours; to be called after a change of the theme. */
export function forgetColours(): void {
  known = new Map();
}
