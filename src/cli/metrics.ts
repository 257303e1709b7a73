/** `pilot-tun metrics`: what Prometheus would read, once. */
import { EXIT } from "../control/api.ts";
import { type Declare, examples } from "./context.ts";

export const declareMetrics: Declare = (program, perform) => {
  program
    .command("metrics")
    .description("the daemon's metrics as Prometheus reads them; `up --metrics` serves them")
    .addHelpText("after", examples("pilot-tun metrics | grep dropped"))
    .action(
      perform(async (context) => {
        const reply = await context.call("metrics", {});
        context.answer(reply, () => [reply.text.trimEnd()]);
        return EXIT.ok;
      }),
    );
};
