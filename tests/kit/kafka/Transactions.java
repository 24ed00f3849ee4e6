import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** The Java clients' exactly-once loop: read as a group, write and commit offsets in one transaction; one line a fact. */
public class Transactions {
    static final String IN = "java-in";
    static final String OUT = "java-out";
    static final String GROUP = "java-group";
    static final int COUNT = 30;

    static Properties common(String servers) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", servers);
        return properties;
    }

    static KafkaProducer<String, String> producer(String servers, String transactionalId) {
        Properties properties = common(servers);
        if (transactionalId != null) properties.put("transactional.id", transactionalId);
        return new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer());
    }

    static KafkaConsumer<String, String> consumer(String servers, String group) {
        Properties properties = common(servers);
        properties.put("group.id", group);
        properties.put("auto.offset.reset", "earliest");
        properties.put("enable.auto.commit", "false");
        properties.put("isolation.level", "read_committed");
        return new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer());
    }

    static List<ConsumerRecord<String, String>> read(KafkaConsumer<String, String> consumer, int count) {
        List<ConsumerRecord<String, String>> found = new ArrayList<>();
        long deadline = System.currentTimeMillis() + 20_000;
        while (found.size() < count && System.currentTimeMillis() < deadline)
            consumer.poll(Duration.ofMillis(200)).forEach(found::add);
        return found;
    }

    /** One transaction over all of the input; returns the producer. */
    static void work(String servers, KafkaProducer<String, String> producer, boolean commit) {
        try (KafkaConsumer<String, String> consumer = consumer(servers, GROUP)) {
            consumer.subscribe(List.of(IN));
            List<ConsumerRecord<String, String>> records = read(consumer, COUNT);
            producer.beginTransaction();
            Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
            for (ConsumerRecord<String, String> record : records) {
                producer.send(new ProducerRecord<>(OUT, record.key(), record.value() + (commit ? " done" : " undone")));
                offsets.merge(
                    new TopicPartition(record.topic(), record.partition()),
                    new OffsetAndMetadata(record.offset() + 1),
                    (one, other) -> one.offset() > other.offset() ? one : other);
            }
            producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
            if (commit) producer.commitTransaction();
            else producer.abortTransaction();
            System.out.println((commit ? "committed " : "aborted ") + records.size());
        }
    }

    static void offsets(Admin admin) throws ExecutionException, InterruptedException {
        Map<String, Long> shown = new TreeMap<>();
        admin.listConsumerGroupOffsets(GROUP).partitionsToOffsetAndMetadata().get()
            .forEach((where, offset) -> shown.put(where.toString(), offset.offset()));
        System.out.println("offsets " + shown);
    }

    public static void main(String[] arguments) throws Exception {
        String servers = arguments[0];
        try (Admin admin = Admin.create(common(servers));
             KafkaProducer<String, String> plain = producer(servers, null);
             KafkaProducer<String, String> first = producer(servers, "java-txn");
             KafkaProducer<String, String> second = producer(servers, "java-txn")) {
            admin.createTopics(List.of(new NewTopic(IN, 3, (short) 1), new NewTopic(OUT, 1, (short) 1))).all().get();
            for (int number = 0; number < COUNT; number++)
                plain.send(new ProducerRecord<>(IN, number % 3, "key", "value " + number)).get();
            first.initTransactions();
            work(servers, first, false);
            offsets(admin);
            work(servers, first, true);
            offsets(admin);
            first.beginTransaction();
            first.send(new ProducerRecord<>(OUT, "key", "zombie"));
            first.flush();
            second.initTransactions();
            try {
                first.commitTransaction();
                System.out.println("not fenced");
            } catch (ProducerFencedException | InvalidProducerEpochException fenced) {
                System.out.println("fenced");
            }
            try (KafkaConsumer<String, String> reader = consumer(servers, "java-readers")) {
                reader.subscribe(List.of(OUT));
                List<ConsumerRecord<String, String>> found = read(reader, COUNT);
                reader.poll(Duration.ofMillis(300)).forEach(found::add);
                long done = found.stream().filter(record -> record.value().endsWith(" done")).count();
                System.out.println("read " + found.size() + " done " + done);
                reader.commitSync();
            }
            System.out.println(
                "group " + admin.describeConsumerGroups(List.of(GROUP)).all().get().get(GROUP).groupState());
        }
    }
}
