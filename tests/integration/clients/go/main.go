// A small backend: posts a message into a room, then watches who comes and who goes.
//
// Where the core is comes from the environment: PRESENCE_API, and if it asks for them PRESENCE_TOKEN and PRESENCE_CA (a PEM file).
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math"
	"math/rand"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"backend/presence"
)

func connect() (*grpc.ClientConn, error) {
	address := os.Getenv("PRESENCE_API")
	if address == "" {
		address = "127.0.0.1:50051"
	}
	transport := insecure.NewCredentials()
	if ca := os.Getenv("PRESENCE_CA"); ca != "" {
		var err error
		if transport, err = credentials.NewClientTLSFromFile(ca, ""); err != nil {
			return nil, err
		}
	}
	return grpc.NewClient(address, grpc.WithTransportCredentials(transport))
}

// follow prints who is online, then each change, and counts those down; nil when there were enough. The request goes along: after an
// error it says where to go on. With each response there were no failures in a row any more.
func follow(ctx context.Context, service presence.PresenceServiceClient, request *presence.WatchPresenceRequest, changes, failures *int) error {
	stream, err := service.WatchPresence(ctx, request)
	if err != nil {
		return err
	}
	for *changes > 0 {
		response, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, user := range response.Presences {
			name := user.Username
			if name == "" {
				name = user.UserId
			}
			fmt.Println(name, "is", strings.ToLower(strings.TrimPrefix(user.Status.String(), "STATUS_")))
		}
		request.ResumeVersion = response.ResumeVersion
		*failures = 0
		if response.SnapshotDone {
			fmt.Println("watching")
		}
		if !response.Snapshot {
			*changes -= len(response.Presences)
		}
	}
	return nil
}

func main() {
	room := flag.String("room", "channel_general", "where the message goes")
	text := flag.String("text", "Hello from Go", "what it says")
	changes := flag.Int("changes", 2, "exit after so many")
	seconds := flag.Int("seconds", 60, "or after this time")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(*seconds)*time.Second)
	defer cancel()
	if token := os.Getenv("PRESENCE_TOKEN"); token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	connection, err := connect()
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	service := presence.NewPresenceServiceClient(connection)

	data, err := json.Marshal(map[string]string{"content": *text})
	if err != nil {
		log.Fatal(err)
	}
	message := &presence.BroadcastRequest{RoomId: *room, Payload: &presence.BroadcastRequest_DataJson{DataJson: string(data)}}
	posted, err := service.Broadcast(ctx, message)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("posted to %d connections\n", posted.ReachedConnections)

	everyone := &presence.WatchPresenceRequest_Everyone_{Everyone: &presence.WatchPresenceRequest_Everyone{}}
	request := &presence.WatchPresenceRequest{Target: everyone}
	jitter := rand.New(rand.NewSource(time.Now().UnixNano()))
	for failures := 0; ctx.Err() == nil; failures++ {
		err := follow(ctx, service, request, changes, &failures)
		switch status.Code(err) {
		case codes.OK, codes.DeadlineExceeded:
			return
		case codes.Unavailable, codes.ResourceExhausted, codes.Canceled:
			// The core is stopping, or Redis is away; too many watch, or this one read too slowly, and if it still does, some seconds later, the
			// stream is cut off: nobody here has cancelled it. Nothing is lost. Not all at once: others were sent away, too.
			pause := time.Duration((0.5 + jitter.Float64()/2) * math.Min(math.Pow(2, float64(failures)), 30) * float64(time.Second))
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		default:
			log.Fatal(err)
		}
	}
}
