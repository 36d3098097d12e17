// socket.io on Node with the contract of loadtest/CONTRACT.md.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, {
  perMessageDeflate: false,
  maxHttpBufferSize: 16 * 1024 * 1024,
});

io.on("connection", (socket) => {
  socket.on("join", (rooms, answer) => {
    socket.join(rooms);
    answer?.();
  });
  socket.on("leave", (rooms, answer) => {
    for (const room of rooms) socket.leave(room);
    answer?.();
  });
  socket.on("publish", (number, text) => {
    io.to("all").emit("tick", number, text);
  });
  socket.on("publish_to", (room, number, text) => {
    io.to(room).emit("tick", number, text);
  });
  socket.on("echo", (value, answer) => answer(value));
});

http.listen(Number(process.env.PORT ?? 3000), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${http.address().port}`);
});
