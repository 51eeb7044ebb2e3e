// One round from a Go backend: items for a user, a label for each, and the wait for the new revision.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	papav1 "example.com/shop/gen/papa/serving/v1"
)

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	user := &papav1.User{User: os.Args[2]}

	shown, err := papav1.NewGenerationServiceClient(connection).
		Generate(ctx, &papav1.GenerateRequest{User: user, Count: 4})
	if err != nil {
		log.Fatal(err) // status.FromError(err) gives google.rpc.ErrorInfo, BadRequest and RetryInfo
	}
	fmt.Printf("%d items by %q\n", len(shown.Items), shown.Revision)

	events := make([]*papav1.FeedbackEvent, len(shown.Items))
	for place, item := range shown.Items {
		signal := papav1.Signal_SIGNAL_LIKE
		if place%2 == 1 {
			signal = papav1.Signal_SIGNAL_DISLIKE
		}
		events[place] = &papav1.FeedbackEvent{
			EventId: "like-of-" + item.ItemId, // a repeated one changes nothing
			User:    user,
			Target:  &papav1.FeedbackEvent_ItemId{ItemId: item.ItemId},
			Label:  &papav1.FeedbackEvent_Signal{Signal: signal},
		}
	}
	accepted, err := papav1.NewFeedbackServiceClient(connection).
		SubmitFeedback(ctx, &papav1.SubmitFeedbackRequest{Events: events})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d labels answered\n", len(accepted.Outcomes))

	// Pushed, not polled: the stream ends when we have seen enough.
	changes, err := papav1.NewUserServiceClient(connection).WatchUser(ctx, &papav1.WatchUserRequest{User: user})
	if err != nil {
		log.Fatal(err)
	}
	for {
		change, err := changes.Recv()
		if err != nil {
			log.Fatal(err)
		}
		if change.State.PendingEvents == 0 {
			fmt.Printf("serving %q\n", change.State.GetCurrentRevision().GetRevision())
			return
		}
	}
}
