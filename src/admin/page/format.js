// Numbers and times as the browser's locale writes them. Times are Unix seconds; days are those of UTC.

const number = (options) => {
  const format = new Intl.NumberFormat(undefined, options);
  return (value) => format.format(value);
};
const date = (options) => {
  const format = new Intl.DateTimeFormat(undefined, options);
  return (seconds) => format.format(new Date(seconds * 1000));
};
const unit = (name) => number({ style: "unit", unit: name, unitDisplay: "short", maximumFractionDigits: 0 });

export const whole = number({ maximumFractionDigits: 0 });
export const decimal = number({ maximumFractionDigits: 1 });
export const short = number({ notation: "compact", maximumFractionDigits: 1 });
export const percent = number({ style: "percent", maximumFractionDigits: 1 });
const cents = number({ style: "currency", currency: "USD" });
const fine = number({ style: "currency", currency: "USD", minimumFractionDigits: 4 });
export const usd = (value) => (value !== 0 && Math.abs(value) < 1 ? fine(value) : cents(value));

export const DAY = 86400;
const units = [[DAY, unit("day")], [3600, unit("hour")], [60, unit("minute")], [1, unit("second")]];

/** A length of time by its two largest units: "2 hr 5 min". */
export function span(seconds) {
  let rest = Math.max(0, Math.round(seconds));
  if (rest < 1) return units[3][1](0);
  const first = units.findIndex(([size]) => rest >= size);
  return units.slice(first, first + 2).map(([size, name]) => {
    const count = Math.floor(rest / size);
    rest -= count * size;
    return count ? name(count) : "";
  }).filter(Boolean).join(" ");
}

const milli = unit("millisecond");
const second = number({ style: "unit", unit: "second", unitDisplay: "short", maximumFractionDigits: 1 });
/** Milliseconds, as short as they can be said. */
export const ms = (value) => (value < 1000 ? milli(value) : value < 60000 ? second(value / 1000) : span(value / 1000));

export const clock = date({ hour: "numeric", minute: "2-digit", second: "2-digit" });
const hour = date({ hour: "numeric", minute: "2-digit" });
const moment = date({ day: "numeric", month: "short", hour: "numeric", minute: "2-digit" });
const utc = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", timeZone: "UTC" });
export const utcDays = (from, to) => utc.formatRange(new Date(from * 1000), new Date(to * 1000));
export const utcDay = (day) => utcDays(day, day);

/** A time of day, with its date where that is not the day of `now`. */
export function at(seconds, now) {
  const same = new Date(seconds * 1000).toDateString() === new Date(now * 1000).toDateString();
  return (same ? hour : moment)(seconds);
}

const gigabytes = number({ style: "unit", unit: "gigabyte", maximumFractionDigits: 2 });
export const bytes = (value) => gigabytes(value / 1e9);
