package millrace.peers.kafkastreams;

import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import millrace.peers.job.Arguments;
import millrace.peers.job.Model;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.state.KeyValueBytesStoreSupplier;
import org.apache.kafka.streams.state.Stores;

/** Payments in, scored payments out: one processor with two stores. The README says why each setting is what it is. */
public final class App {
    private static final Duration CLOSE = Duration.ofSeconds(20);

    public static void main(String[] words) throws InterruptedException {
        Arguments arguments = new Arguments(words);
        KafkaStreams streams = new KafkaStreams(topology(arguments), settings(arguments));
        CountDownLatch ended = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(
                error -> {
                    error.printStackTrace();
                    return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
                });
        streams.setStateListener(
                (now, before) -> {
                    if (now == KafkaStreams.State.ERROR || now == KafkaStreams.State.NOT_RUNNING) {
                        ended.countDown();
                    }
                });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(CLOSE)));
        streams.start();
        ended.await();
        if (streams.state() == KafkaStreams.State.ERROR) {
            Runtime.getRuntime().halt(1);
        }
    }

    static Topology topology(Arguments arguments) {
        KeyValueBytesStoreSupplier payments =
                arguments.get("store").equals("rocksdb")
                        ? Stores.persistentKeyValueStore(ScorePayments.PAYMENTS)
                        : Stores.inMemoryKeyValueStore(ScorePayments.PAYMENTS);
        Model model = new Model(arguments.get("model"));
        return new Topology()
                .addSource("input", new ByteArrayDeserializer(), new ByteArrayDeserializer(), arguments.get("input"))
                .addProcessor("score", () -> new ScorePayments(arguments, model), "input")
                .addStateStore(
                        Stores.keyValueStoreBuilder(payments, Serdes.Bytes(), Serdes.ByteArray()).withCachingDisabled(), "score")
                .addStateStore(
                        Stores.keyValueStoreBuilder(
                                        Stores.inMemoryKeyValueStore(ScorePayments.UNSCORED), Serdes.Integer(), Serdes.ByteArray())
                                .withCachingEnabled(),
                        "score")
                .addSink("output", arguments.get("output"), new ByteArraySerializer(), new ByteArraySerializer(), "score");
    }

    private static Properties settings(Arguments arguments) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments.get("group"));
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments.get("bootstrap-servers"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments.get("state-dir"));
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, arguments.get("guarantee"));
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, arguments.get("threads"));
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1_000);
        settings.put(StreamsConfig.POLL_MS_CONFIG, 5);
        settings.put(StreamsConfig.ROCKSDB_CONFIG_SETTER_CLASS_CONFIG, BoundedMemory.class);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 2_000);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 5);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 128 * 1024);
        return settings;
    }
}
