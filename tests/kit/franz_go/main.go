// The franz-go client's judge of a node: a group of three, offsets, and an exactly-once loop; one line a fact.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	in, out    = "go-in", "go-out"
	partitions = 6
	count      = 300
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func create(ctx context.Context, client *kgo.Client, topic string, parts int32) {
	request := kmsg.NewPtrCreateTopicsRequest()
	asked := kmsg.NewCreateTopicsRequestTopic()
	asked.Topic, asked.NumPartitions, asked.ReplicationFactor = topic, parts, 1
	request.Topics = append(request.Topics, asked)
	request.TimeoutMillis = 10_000
	_, err := request.RequestWith(ctx, client)
	must(err)
}

func group(servers string, name string, options ...kgo.Opt) []kgo.Opt {
	return append([]kgo.Opt{
		kgo.SeedBrokers(servers),
		kgo.ConsumerGroup(name),
		kgo.ConsumeTopics(in),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.HeartbeatInterval(300 * time.Millisecond),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RequireStableFetchOffsets(),
	}, options...)
}

func main() {
	servers := os.Args[1]
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	producer, err := kgo.NewClient(kgo.SeedBrokers(servers), kgo.DefaultProduceTopic(in), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	must(err)
	create(ctx, producer, in, partitions)
	create(ctx, producer, out, 1)

	// three members share the topic while it is written
	seen := make(chan string, 10*count)
	var members []*kgo.Client
	for range 3 {
		member, err := kgo.NewClient(group(servers, "go-group", kgo.Balancers(kgo.CooperativeStickyBalancer()))...)
		must(err)
		members = append(members, member)
		go func() {
			for {
				fetches := member.PollFetches(ctx)
				if fetches.IsClientClosed() || ctx.Err() != nil {
					return
				}
				fetches.EachRecord(func(record *kgo.Record) { seen <- string(record.Value) })
			}
		}()
	}
	for number := range count {
		must(producer.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint(number))).FirstErr())
	}
	distinct := map[string]bool{}
	for len(distinct) < count {
		select {
		case value := <-seen:
			distinct[value] = true
		case <-ctx.Done():
			must(ctx.Err())
		}
	}
	fmt.Println("group read", len(distinct))
	for _, member := range members {
		must(member.CommitUncommittedOffsets(ctx))
		member.Close()
	}

	// read, write and commit offsets in one transaction: the first is aborted
	for _, commit := range []bool{false, true} {
		session, err := kgo.NewGroupTransactSession(group(servers, "go-txn", kgo.TransactionalID("go-txn"))...)
		must(err)
		must(session.Begin())
		got := 0
		for got < count {
			fetches := session.PollFetches(ctx)
			must(errors.Join(ctx.Err(), fetches.Err()))
			fetches.EachRecord(func(record *kgo.Record) {
				got++
				session.Produce(ctx, &kgo.Record{Topic: out, Value: record.Value}, nil)
			})
		}
		_, err = session.End(ctx, kgo.TransactionEndTry(commit))
		must(err)
		fmt.Println("transaction", commit, got)
		session.Close()
	}

	reader, err := kgo.NewClient(kgo.SeedBrokers(servers), kgo.ConsumeTopics(out),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	must(err)
	read := 0
	for read < count {
		fetches := reader.PollFetches(ctx)
		must(errors.Join(ctx.Err(), fetches.Err()))
		read += fetches.NumRecords()
	}
	fmt.Println("committed read", read)
}
