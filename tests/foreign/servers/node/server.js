// Serves zoo.v1.Stock with the reflection of @grpc/reflection: its descriptors come from proto-loader, not from protoc.
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const { ReflectionService } = require('@grpc/reflection');

const loaded = loader.loadSync('stock.proto', { keepCase: true, includeDirs: [process.argv[2]] });
const { Stock } = grpc.loadPackageDefinition(loaded).zoo.v1;
const answer = (call, done) => done(null, { id: call.request.id, meta: call.request.meta });
const server = new grpc.Server();
server.addService(Stock.service, { Take: answer, Give: answer });
new ReflectionService(loaded).addToServer(server);
server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(port);
});
