import com.google.protobuf.DescriptorProtos.FileDescriptorProto;
import com.google.protobuf.DescriptorProtos.FileDescriptorSet;
import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Descriptors.FileDescriptor;
import com.google.protobuf.Descriptors.MethodDescriptor;
import com.google.protobuf.Descriptors.ServiceDescriptor;
import com.google.protobuf.DynamicMessage;
import io.grpc.InsecureServerCredentials;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.Server;
import io.grpc.ServerServiceDefinition;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.protobuf.ProtoFileDescriptorSupplier;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.protobuf.services.ProtoReflectionServiceV1;
import io.grpc.stub.ServerCalls;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;

/** Serves zoo.v1.Stock with the reflection of grpc-java, from a FileDescriptorSet. */
public final class Stock {
  private static final String NAME = "zoo.v1.Stock";

  public static void main(String[] arguments) throws Exception {
    FileDescriptorSet set = FileDescriptorSet.parseFrom(Files.readAllBytes(Path.of(arguments[0])));
    Map<String, FileDescriptor> files = new LinkedHashMap<>();
    for (FileDescriptorProto file : set.getFileList()) {
      FileDescriptor[] imports = file.getDependencyList().stream().map(files::get).toArray(FileDescriptor[]::new);
      files.put(file.getName(), FileDescriptor.buildFrom(file, imports));
    }
    ServiceDescriptor stock = files.get("stock.proto").findServiceByName("Stock");
    io.grpc.ServiceDescriptor.Builder description = io.grpc.ServiceDescriptor.newBuilder(NAME)
        .setSchemaDescriptor((ProtoFileDescriptorSupplier) stock::getFile);
    Map<MethodDescriptor, io.grpc.MethodDescriptor<DynamicMessage, DynamicMessage>> methods = new LinkedHashMap<>();
    for (MethodDescriptor method : stock.getMethods()) {
      methods.put(method, io.grpc.MethodDescriptor.<DynamicMessage, DynamicMessage>newBuilder()
          .setType(MethodType.UNARY)
          .setFullMethodName(io.grpc.MethodDescriptor.generateFullMethodName(NAME, method.getName()))
          .setRequestMarshaller(ProtoUtils.marshaller(DynamicMessage.getDefaultInstance(method.getInputType())))
          .setResponseMarshaller(ProtoUtils.marshaller(DynamicMessage.getDefaultInstance(method.getOutputType())))
          .build());
      description.addMethod(methods.get(method));
    }
    ServerServiceDefinition.Builder service = ServerServiceDefinition.builder(description.build());
    methods.forEach((method, described) -> service.addMethod(described,
        ServerCalls.asyncUnaryCall((request, answer) -> {
          answer.onNext(reply(method, request));
          answer.onCompleted();
        })));
    Server server = NettyServerBuilder
        .forAddress(new InetSocketAddress("127.0.0.1", 0), InsecureServerCredentials.create())
        .addService(service.build())
        .addService(ProtoReflectionServiceV1.newInstance())
        .build()
        .start();
    System.out.println(server.getPort());
    server.awaitTermination();
  }

  private static DynamicMessage reply(MethodDescriptor method, DynamicMessage request) {
    DynamicMessage.Builder reply = DynamicMessage.newBuilder(method.getOutputType());
    for (FieldDescriptor field : method.getOutputType().getFields()) {
      FieldDescriptor from = method.getInputType().findFieldByName(field.getName());
      if (!from.isRepeated() && (!from.hasPresence() || request.hasField(from))) {
        reply.setField(field, request.getField(from));
      }
    }
    return reply.build();
  }
}
