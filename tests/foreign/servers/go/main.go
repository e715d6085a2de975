// Serves zoo.v1.Stock with the reflection of grpc-go, from a FileDescriptorSet.
package main

import (
	"context"
	"fmt"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	v1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
)

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func main() {
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(must(os.ReadFile(os.Args[1])), set); err != nil {
		must(0, err)
	}
	files := must(protodesc.NewFiles(set))
	stock := must(files.FindDescriptorByName("zoo.v1.Stock")).(protoreflect.ServiceDescriptor)
	description := grpc.ServiceDesc{ServiceName: "zoo.v1.Stock", HandlerType: (*any)(nil)}
	for i := 0; i < stock.Methods().Len(); i++ {
		method := stock.Methods().Get(i)
		handler := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			request := dynamicpb.NewMessage(method.Input())
			if err := decode(request); err != nil {
				return nil, err
			}
			reply := dynamicpb.NewMessage(method.Output())
			for _, name := range []protoreflect.Name{"id", "meta"} {
				if from := method.Input().Fields().ByName(name); request.Has(from) {
					reply.Set(method.Output().Fields().ByName(name), request.Get(from))
				}
			}
			return reply, nil
		}
		description.Methods = append(description.Methods, grpc.MethodDesc{MethodName: string(method.Name()), Handler: handler})
	}
	server := grpc.NewServer()
	server.RegisterService(&description, struct{}{})
	v1.RegisterServerReflectionServer(server, reflection.NewServerV1(reflection.ServerOptions{
		Services: server, DescriptorResolver: files, ExtensionResolver: protoregistry.GlobalTypes,
	}))
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	must(0, server.Serve(listener))
}
