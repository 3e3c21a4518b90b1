/**
 * Dates in header fields (RFC 9110 §5.6.7).
 *
 * @module
 */

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

const MONTH = `(?<month>${MONTHS.join("|")})`;
const TIME = "(?<hour>\\d\\d):(?<minute>\\d\\d):(?<second>\\d\\d)";

/** RFC 9110 §5.6.7: a recipient must accept all three formats, of which two are obsolete. */
const FORMATS = [
  // IMF-fixdate: Sun, 06 Nov 1994 08:49:37 GMT
  `(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?<day>\\d\\d) ${MONTH} (?<year>\\d{4}) ${TIME} GMT`,
  // rfc850-date: Sunday, 06-Nov-94 08:49:37 GMT
  `(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?<day>\\d\\d)-${MONTH}-(?<year>\\d\\d) ${TIME} GMT`,
  // asctime-date: Sun Nov  6 08:49:37 1994
  `(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) ${MONTH} (?<day>\\d\\d| \\d) ${TIME} (?<year>\\d{4})`,
].map((format) => new RegExp(`^${format}$`));

/**
 * Reads a date.
 *
 * @param text the value of a header field
 * @param now the present, in milliseconds since 1970: a year of two digits is near it
 * @returns the milliseconds since 1970, or undefined if the text is not a date
 */
export function parseHttpDate(text: string, now: number): number | undefined {
  for (const format of FORMATS) {
    const { groups } = format.exec(text) ?? {};
    if (groups !== undefined) return toTime(groups, now);
  }
}

function toTime(groups: Record<string, string>, now: number): number | undefined {
  const [day, hour, minute, second] = ["day", "hour", "minute", "second"].map((name) =>
    Number(groups[name])
  );
  const year = groups.year.length === 4 ? Number(groups.year) : nearYear(Number(groups.year), now);
  const date = new Date(0);
  date.setUTCFullYear(year, MONTHS.indexOf(groups.month), day);
  // RFC 9110 §5.6.7: a second of 60 is a leap second.
  if (date.getUTCDate() !== day || hour > 23 || minute > 59 || second > 60) return undefined;
  return date.setUTCHours(hour, minute, second);
}

/** RFC 9110 §5.6.7: a year that seems to be more than 50 years ahead is in the past. */
function nearYear(digits: number, now: number): number {
  const present = new Date(now).getUTCFullYear();
  const year = present - present % 100 + digits;
  return year > present + 50 ? year - 100 : year;
}
