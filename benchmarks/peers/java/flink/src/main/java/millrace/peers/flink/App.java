package millrace.peers.flink;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Comparator;
import java.util.Optional;
import java.util.stream.Stream;
import millrace.peers.job.Arguments;
import millrace.peers.job.Payment;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.CoreOptions;
import org.apache.flink.configuration.ExecutionOptions;
import org.apache.flink.configuration.ExternalizedCheckpointRetention;
import org.apache.flink.configuration.MemorySize;
import org.apache.flink.configuration.PipelineOptions;
import org.apache.flink.configuration.RestOptions;
import org.apache.flink.configuration.StateBackendOptions;
import org.apache.flink.configuration.StateRecoveryOptions;
import org.apache.flink.configuration.TaskManagerOptions;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.sink.TransactionNamingStrategy;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.core.execution.CheckpointingMode;
import org.apache.flink.core.execution.RecoveryClaimMode;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** Payments in, scored payments out, on a MiniCluster in this process. The README says why each setting is what it is. */
public final class App {
    public static void main(String[] words) throws Exception {
        Arguments arguments = new Arguments(words);
        StreamExecutionEnvironment environment =
                StreamExecutionEnvironment.createLocalEnvironment(arguments.number("parallelism"), settings(arguments));
        build(environment, arguments);
        environment.execute("scored payments");
    }

    private static void build(StreamExecutionEnvironment environment, Arguments arguments) {
        String bootstrap = arguments.get("bootstrap-servers");
        KafkaSource<Payment> payments =
                KafkaSource.<Payment>builder()
                        .setBootstrapServers(bootstrap)
                        .setTopics(arguments.get("input"))
                        .setGroupId(arguments.get("group"))
                        .setStartingOffsets(OffsetsInitializer.earliest())
                        .setDeserializer(new PaymentDeserializer(arguments.get("schemas")))
                        .setProperty("max.poll.records", "2000")
                        .build();
        KafkaSink<ScoredPayment> scored =
                KafkaSink.<ScoredPayment>builder()
                        .setBootstrapServers(bootstrap)
                        .setRecordSerializer(
                                KafkaRecordSerializationSchema.<ScoredPayment>builder()
                                        .setTopic(arguments.get("output"))
                                        .setKeySerializationSchema(payment -> payment.customerId.getBytes(StandardCharsets.UTF_8))
                                        .setValueSerializationSchema(new ScoredSerializer(arguments.get("schemas")))
                                        .build())
                        .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
                        .setTransactionalIdPrefix(arguments.get("group"))
                        .setTransactionNamingStrategy(TransactionNamingStrategy.POOLING)
                        .setProperty("transaction.timeout.ms", "600000")
                        .setProperty("batch.size", String.valueOf(128 * 1024))
                        .setProperty("linger.ms", "5")
                        .build();
        environment
                .fromSource(payments, WatermarkStrategy.noWatermarks(), "payments")
                .uid("payments")
                .keyBy(payment -> payment.customerId)
                .process(new CustomerWindows())
                .uid("windows")
                .transform("score", TypeInformation.of(ScoredPayment.class), new ScoreBatches(arguments.get("model"), arguments.number("rows")))
                .uid("score")
                .sinkTo(scored)
                .uid("scored");
    }

    private static Configuration settings(Arguments arguments) throws IOException {
        Configuration settings = new Configuration();
        Path checkpoints = Path.of(arguments.get("state-dir"), "checkpoints");
        boolean rocksdb = arguments.get("state").equals("rocksdb");
        settings.set(StateBackendOptions.STATE_BACKEND, arguments.get("state"));
        settings.set(CheckpointingOptions.CHECKPOINTING_INTERVAL, Duration.ofMillis(arguments.number("checkpoint-ms")));
        settings.set(CheckpointingOptions.CHECKPOINTING_CONSISTENCY_MODE, CheckpointingMode.EXACTLY_ONCE);
        settings.set(CheckpointingOptions.CHECKPOINT_STORAGE, "filesystem");
        settings.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, checkpoints.toUri().toString());
        settings.set(CheckpointingOptions.EXTERNALIZED_CHECKPOINT_RETENTION, ExternalizedCheckpointRetention.RETAIN_ON_CANCELLATION);
        settings.set(CheckpointingOptions.INCREMENTAL_CHECKPOINTS, rocksdb);
        settings.set(PipelineOptions.OBJECT_REUSE, true);
        settings.set(PipelineOptions.GENERIC_TYPES, false);
        settings.set(ExecutionOptions.BUFFER_TIMEOUT, Duration.ofMillis(10));
        settings.set(TaskManagerOptions.MANAGED_MEMORY_SIZE, rocksdb ? MemorySize.ofMebiBytes(256) : MemorySize.ZERO);
        settings.set(CoreOptions.TMP_DIRS, arguments.get("state-dir") + "/tmp");
        // A MiniCluster that is started again knows nothing of the last one, so it is told where that one stood.
        newest(checkpoints).ifPresent(
                checkpoint -> {
                    settings.set(StateRecoveryOptions.SAVEPOINT_PATH, checkpoint.toUri().toString());
                    settings.set(StateRecoveryOptions.RESTORE_MODE, RecoveryClaimMode.CLAIM);
                });
        settings.set(RestOptions.BIND_ADDRESS, "127.0.0.1");
        settings.set(RestOptions.ADDRESS, "127.0.0.1");
        settings.set(RestOptions.BIND_PORT, "0");
        return settings;
    }

    /** The folder of the last checkpoint that was completed. */
    private static Optional<Path> newest(Path checkpoints) throws IOException {
        if (!Files.exists(checkpoints)) {
            return Optional.empty();
        }
        try (Stream<Path> files = Files.walk(checkpoints, 3)) {
            return files.filter(file -> file.endsWith("_metadata"))
                    .max(Comparator.comparing(file -> file.toFile().lastModified()))
                    .map(Path::getParent);
        }
    }
}
