/** graphql-ws: queries, subscriptions that end and that are given up, and a client that is refused. */
import { GraphQLInt, GraphQLObjectType, GraphQLSchema, GraphQLString } from "graphql";
import { createClient } from "graphql-ws";
import { useServer } from "graphql-ws/use/ws";
import { listen, type Program, range } from "./program.ts";

const schema = new GraphQLSchema({
  query: new GraphQLObjectType({
    name: "Query",
    fields: { hello: { type: GraphQLString, resolve: () => "world" } },
  }),
  subscription: new GraphQLObjectType({
    name: "Subscription",
    fields: {
      count: {
        type: GraphQLInt,
        args: { to: { type: GraphQLInt } },
        async *subscribe(_, { to }) {
          for (const count of range(to)) yield { count };
        },
      },
    },
  }),
});

export const run: Program = async ({ WebSocket, WebSocketServer }, { load, measure }) => {
  const { server, port } = await listen();
  const wss = new WebSocketServer({ server, path: "/graphql" });
  const stop = useServer(
    { schema, onConnect: ({ connectionParams }) => connectionParams?.token !== "wrong" },
    wss as never,
  );
  const connect = (token: string) =>
    createClient({
      url: `ws://127.0.0.1:${port}/graphql`,
      webSocketImpl: WebSocket,
      connectionParams: { token },
      retryAttempts: 0,
      lazy: true,
    });
  const client = connect("right");
  const sums: number[] = [];
  const count = 200 * load;
  await measure(5 * count, async () => {
    await Promise.all(
      range(5).map(async () => {
        let sum = 0;
        const query = `subscription { count(to: ${count}) }`;
        for await (const { data } of client.iterate({ query })) sum += data!.count as number;
        sums.push(sum);
      }),
    );
  });
  const [first] = await Array.fromAsync(client.iterate({ query: "{ hello }" }));
  let taken = 0;
  for await (const _ of client.iterate({ query: "subscription { count(to: 1000000) }" })) {
    if (++taken === 3) break;
  }
  const refused = await new Promise((resolve) =>
    connect("wrong").subscribe({ query: "{ hello }" }, {
      next() {},
      complete: () => resolve("completed"),
      error: (error) => {
        const { code, reason } = error as { code: number; reason: string };
        resolve([code, reason]);
      },
    })
  );
  await client.dispose();
  await stop.dispose();
  server.close();
  return { sums, first, taken, refused };
};
