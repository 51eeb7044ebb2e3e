// One round from a TypeScript backend: items for a user, a label for each, and the wait for the new revision.
//
//   npm install @grpc/grpc-js @grpc/proto-loader
//   npx tsx round.mts 127.0.0.1:50051 alice

import { credentials, loadPackageDefinition, type ServiceError } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { randomUUID } from "node:crypto";
import { argv, env } from "node:process";

const [, , address = "127.0.0.1:50051", name = "alice"] = argv;
const protos = env.PAPA_PROTOS ?? "../../../protos";
const definition = loadSync(
  ["generation", "feedback", "user"].map((file) => `papa/serving/v1/${file}.proto`),
  { includeDirs: [protos], keepCase: true, longs: String, enums: String, defaults: true },
);
const { papa } = loadPackageDefinition(definition) as any;
const { GenerationService, FeedbackService, UserService } = papa.serving.v1;
const plain = credentials.createInsecure();
const generation = new GenerationService(address, plain);
const feedback = new FeedbackService(address, plain);
const users = new UserService(address, plain);

function call<Answer>(client: any, method: string, request: object, seconds = 60): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const deadline = Date.now() + 1000 * seconds;
    client[method](request, { deadline }, (error: ServiceError | null, answer: Answer) => (error ? reject(error) : resolve(answer)));
  });
}

type Item = { item_id: string; image: Buffer; content_type: string; seed: string };
const user = { user: name };

const shown = await call<{ items: Item[]; revision: string }>(generation, "Generate", { user, count: 4 });
console.log(`${shown.items.length} items by ${shown.revision || "the backbone"}`);

const events = shown.items.map(({ item_id }, place) => ({
  event_id: randomUUID(), // keep it when you send the event again: a repeated one changes nothing
  user,
  item_id,
  signal: place % 2 ? "SIGNAL_DISLIKE" : "SIGNAL_LIKE",
}));
const { outcomes } = await call<{ outcomes: { ack?: object }[] }>(feedback, "SubmitFeedback", { events });
console.log(`${outcomes.filter(({ ack }) => ack).length} labels accepted`);

// Pushed, not polled: the stream ends when we have seen enough.
const watching = users.WatchUser({ user });
watching.on("data", ({ state }: any) => {
  console.log(`${state.pending_events} labels still to be learnt`);
  if (state.pending_events !== "0") return;
  console.log(`serving ${state.current_revision?.revision ?? "the backbone"}`);
  watching.cancel();
});
watching.on("error", () => undefined); // our own cancel
