/** What a run tells, as lines: log lines in Unsloth's shape, a progress bar with the time left where there is a screen. @module */
import { evalLine, type RankFigures, type TrainEvent, trainLine } from "../train/mod.ts";
import { bar, duration, type Terminal } from "./terminal.ts";

/** Steps the time left is judged by. */
const WINDOW = 20;

/** A listener for a run's events. */
export function runReport(terminal: Terminal): (event: TrainEvent) => void {
  const seconds: number[] = [];
  let notedEta = false;
  return (e) => {
    switch (e.kind) {
      case "resume":
        return terminal.out(`Going on after step ${e.step} from ${e.path}`);
      case "step": {
        const { step, loss, seconds: took } = e.metrics;
        seconds.push(took);
        if (seconds.length > WINDOW) seconds.shift();
        const left = (e.steps - step) * seconds.reduce((a, b) => a + b, 0) / seconds.length;
        const width = Math.max(10, Math.min(40, terminal.columns - 50));
        terminal.status(
          `Step ${step}/${e.steps} ${bar(step / e.steps, width)} loss ${loss.toFixed(3)}, ${duration(left)} left`,
        );
        if (!terminal.tty && !notedEta && step >= 3 && step < e.steps) {
          terminal.note(`About ${duration(left)} left`);
          notedEta = true;
        }
        return;
      }
      case "log":
        return terminal.out(trainLine(e.figures));
      case "eval":
        return terminal.out(evalLine(e.figures));
      case "saved":
        return terminal.out(`Iter ${e.step}: Saved checkpoint to ${e.path}.`);
      case "ranks":
        return terminal.out(ranksLine(e.figures));
      case "early stop":
        return terminal.out(
          `Stopped early: no better held-out loss in ${e.stop.worse} evaluations; the best was ` +
            `${e.stop.best.loss.toFixed(3)} at step ${e.stop.best.step}, whose adapter is kept`,
        );
    }
  };
}

/** `Iter 24: Adaptive rank 13.42 on average, 4 to 16; 4.090M of 4.884M adapter parameters stay` */
function ranksLine({ step, mean, least, most, elements, of }: RankFigures): string {
  const millions = (n: number) => `${(n / 1e6).toFixed(3)}M`;
  return `Iter ${step}: Adaptive rank ${mean.toFixed(2)} on average, ${least} to ${most}; ` +
    `${millions(elements)} of ${millions(of)} adapter parameters stay`;
}
