/** What CI may leave out: what needs hardware that it lacks. Any other skipped test there is a proof lost in silence. */
const HARDWARE = [/Cannot use CUDA: no NVIDIA driver/, /Cannot use Metal on .*needs a Mac/];

/**
 * The skipped tests of a suite's output (lines `skipped: NAME (WHY)`, as plain_reporter.ts prints them) that no missing hardware
 * explains. A line may name several backends: each of its reasons, between semicolons, must be one of these.
 * @param excuses patterns of further reasons: what this machine is known to lack, and has said so
 */
export function unexplained(output, excuses = []) {
  const known = [...HARDWARE, ...excuses], lines = output.match(/^skipped: .*$/gm) ?? [];
  const reasons = (line) => line.replace(/; install .*?, or use another backend/g, "").split("; ");
  return lines.filter((line) => !reasons(line).every((why) => known.some((k) => k.test(why))));
}
