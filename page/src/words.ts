// Formats numbers and times for readers.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const THREE = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const FIXED = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const CLOCK = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hour12: false,
});

export const UNKNOWN = "–";

export function count(value: number | null | undefined): string {
  return value == null ? UNKNOWN : WHOLE.format(value);
}

/** 12,345 → 12.3 k: three significant digits. */
export function short(value: number | null | undefined): string {
  if (value == null) return UNKNOWN;
  const size = Math.abs(value);
  if (size >= 999.5e9) return `${THREE.format(value / 1e12)} T`;
  if (size >= 999.5e6) return `${THREE.format(value / 1e9)} G`;
  if (size >= 999.5e3) return `${THREE.format(value / 1e6)} M`;
  if (size >= 9_999.5) return `${THREE.format(value / 1e3)} k`;
  return size >= 99.5 ? WHOLE.format(value) : THREE.format(value);
}

export function fixed(value: number | null | undefined): string {
  return value == null ? UNKNOWN : FIXED.format(value);
}

/** Rounded down, so that only 1 is shown as 100 %. */
export function percent(share: number | null | undefined): string {
  return share == null ? UNKNOWN : `${Math.floor(100 * share + 1e-9)} %`;
}

export function duration(seconds: number | null | undefined): string {
  if (seconds == null) return UNKNOWN;
  if (seconds <= 0) return "0 s";
  if (seconds < 9.95 && !Number.isInteger(seconds)) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.floor(whole / 60)} min${whole % 60 === 0 ? "" : ` ${pad(whole % 60)} s`}`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${pad(minutes % 60)} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
}

export function clock(time: Date): string {
  return CLOCK.format(time);
}

export function many(number: number, one: string, more = `${one}s`): string {
  return `${count(number)} ${number === 1 ? one : more}`;
}

function pad(value: number): string {
  return String(value).padStart(2, "0");
}

/** Returns a name; "" for "none", which scripted engines report as their model and device. */
export function named(name: string): string {
  return name === "none" ? "" : name;
}

/** Returns a number, null (shown as "–") for 0: for numbers whose 0 means that they are not known. */
export function known(value: number): number | null {
  return value > 0 ? value : null;
}
