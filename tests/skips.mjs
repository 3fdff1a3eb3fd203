/** What CI may leave out: what needs hardware that it lacks. Any other skipped test there is a proof lost in silence. */
const HARDWARE = [/Cannot use CUDA: no NVIDIA driver/, /Cannot use Metal on .*needs a Mac/];

/**
 * The skipped tests of a suite's output (lines `skipped: NAME (WHY)`, as plain_reporter.ts prints them) that no missing hardware
 * explains. A line may name several backends: each of its reasons, between semicolons, must be one of these.
 */
export function unexplained(output) {
  const lines = output.match(/^skipped: .*$/gm) ?? [];
  return lines.filter((line) =>
    !line.replace(/; install .*?, or use another backend/g, "").split("; ").every(isHardware)
  );
}
const isHardware = (reason) => HARDWARE.some((known) => known.test(reason));
