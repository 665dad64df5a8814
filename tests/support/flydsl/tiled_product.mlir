// MLIR of tiled_product.py, FlyDSL 0.3.1 for gfx950, its last stage before LLVM in generic form.
"builtin.module"() ({
  "gpu.module"() <{sym_name = "kernels", targets = [#rocdl.target<chip = "gfx950">]}> ({
    "llvm.func"() <{CConv = #llvm.cconv<ccc>, function_type = !llvm.func<void (ptr<1>, ptr<1>, ptr<1>, i32)>, linkage = #llvm.linkage<external>, sym_name = "tiled_product_0", unnamed_addr = 0 : i64, visibility_ = 0 : i64}> ({
    ^bb0(%arg5: !llvm.ptr<1>, %arg6: !llvm.ptr<1>, %arg7: !llvm.ptr<1>, %arg8: i32):
      %18 = "llvm.mlir.constant"() <{value = -1 : i64}> : () -> i64
      %19 = "llvm.mlir.constant"() <{value = false}> : () -> i1
      %20 = "llvm.mlir.constant"() <{value = 0 : i64}> : () -> i64
      %21 = "llvm.mlir.constant"() <{value = 3 : i64}> : () -> i64
      %22 = "llvm.mlir.constant"() <{value = 2 : i64}> : () -> i64
      %23 = "llvm.mlir.constant"() <{value = 1 : i64}> : () -> i64
      %24 = "llvm.mlir.constant"() <{value = 32 : i64}> : () -> i64
      %25 = "llvm.mlir.constant"() <{value = 4 : i64}> : () -> i64
      %26 = "llvm.mlir.constant"() <{value = 1024 : i64}> : () -> i64
      %27 = "llvm.mlir.constant"() <{value = 64 : i64}> : () -> i64
      %28 = "llvm.mlir.constant"() <{value = 1 : index}> : () -> i64
      %29 = "llvm.mlir.constant"() <{value = 2 : index}> : () -> i64
      %30 = "llvm.mlir.constant"() <{value = 0 : index}> : () -> i64
      %31 = "llvm.mlir.constant"() <{value = 2048 : i64}> : () -> i64
      %32 = "llvm.mlir.constant"() <{value = 128 : i64}> : () -> i64
      %33 = "llvm.mlir.constant"() <{value = dense<0.000000e+00> : vector<4xf32>}> : () -> vector<4xf32>
      %34 = "llvm.mlir.constant"() <{value = 16 : i64}> : () -> i64
      %35 = "rocdl.workitem.id.x"() <{range = #llvm.constant_range<i32, 0, 64>}> : () -> i32
      %36 = "llvm.sext"(%35) : (i32) -> i64
      %37 = "llvm.sdiv"(%36, %34) : (i64, i64) -> i64
      %38 = "llvm.mul"(%37, %34) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %39 = "llvm.icmp"(%36, %38) <{predicate = 1 : i64}> : (i64, i64) -> i1
      %40 = "llvm.icmp"(%36, %20) <{predicate = 2 : i64}> : (i64, i64) -> i1
      %41 = "llvm.icmp"(%40, %19) <{predicate = 1 : i64}> : (i1, i1) -> i1
      %42 = "llvm.and"(%39, %41) : (i1, i1) -> i1
      %43 = "llvm.add"(%37, %18) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %44 = "llvm.select"(%42, %43, %37) <{fastmathFlags = #llvm.fastmath<none>}> : (i1, i64, i64) -> i64
      %45 = "llvm.srem"(%36, %34) : (i64, i64) -> i64
      %46 = "rocdl.workgroup.id.x"() : () -> i32
      %47 = "llvm.sext"(%46) : (i32) -> i64
      %48 = "rocdl.workgroup.id.y"() : () -> i32
      %49 = "llvm.sext"(%48) : (i32) -> i64
      %50 = "llvm.mul"(%47, %34) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %51 = "llvm.add"(%50, %45) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %52 = "llvm.mul"(%51, %32) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %53 = "llvm.mul"(%44, %34) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %54 = "llvm.add"(%52, %53) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %55 = "llvm.mul"(%49, %31) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %56 = "llvm.mul"(%36, %34) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %57 = "llvm.add"(%55, %56) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      "llvm.br"(%30, %33)[^bb1] : (i64, vector<4xf32>) -> ()
    ^bb1(%58: i64, %59: vector<4xf32>):  // 2 preds: ^bb0, ^bb2
      %60 = "llvm.icmp"(%58, %29) <{predicate = 2 : i64}> : (i64, i64) -> i1
      "llvm.cond_br"(%60)[^bb2, ^bb3] <{operandSegmentSizes = array<i32: 1, 0, 0>}> : (i1) -> ()
    ^bb2:  // pred: ^bb1
      %61 = "llvm.mul"(%58, %27) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %62 = "llvm.add"(%54, %61) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %63 = "llvm.ptrtoint"(%arg5) : (!llvm.ptr<1>) -> i64
      %64 = "llvm.add"(%63, %62) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %65 = "llvm.inttoptr"(%64) : (i64) -> !llvm.ptr<1>
      %66 = "llvm.load"(%65) <{ordering = 0 : i64}> : (!llvm.ptr<1>) -> vector<8xbf16>
      %67 = "llvm.mul"(%58, %26) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %68 = "llvm.add"(%57, %67) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %69 = "llvm.ptrtoint"(%arg6) : (!llvm.ptr<1>) -> i64
      %70 = "llvm.add"(%69, %68) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %71 = "llvm.inttoptr"(%70) : (i64) -> !llvm.ptr<1>
      %72 = "llvm.load"(%71) <{ordering = 0 : i64}> : (!llvm.ptr<1>) -> vector<8xbf16>
      %73 = "rocdl.mfma.f32.16x16x32.bf16"(%66, %72, %59) <{abid = 0 : i32, blgp = #rocdl<mfma_perm_b none>, cbsz = 0 : i32}> : (vector<8xbf16>, vector<8xbf16>, vector<4xf32>) -> vector<4xf32>
      %74 = "llvm.add"(%58, %28) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      "llvm.br"(%74, %73)[^bb1] : (i64, vector<4xf32>) -> ()
    ^bb3:  // pred: ^bb1
      %75 = "llvm.mul"(%44, %25) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %76 = "llvm.add"(%50, %75) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %77 = "llvm.trunc"(%76) <{overflowFlags = 0 : i32}> : (i64) -> i32
      %78 = "llvm.icmp"(%77, %arg8) <{predicate = 2 : i64}> : (i32, i32) -> i1
      "llvm.cond_br"(%78)[^bb4, ^bb5] <{operandSegmentSizes = array<i32: 1, 0, 0>}> : (i1) -> ()
    ^bb4:  // pred: ^bb3
      %79 = "llvm.extractelement"(%59, %20) : (vector<4xf32>, i64) -> f32
      %80 = "llvm.mul"(%76, %24) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %81 = "llvm.mul"(%49, %34) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %82 = "llvm.add"(%80, %81) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %83 = "llvm.add"(%82, %45) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %84 = "llvm.mul"(%83, %25) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %85 = "llvm.ptrtoint"(%arg7) : (!llvm.ptr<1>) -> i64
      %86 = "llvm.add"(%85, %84) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %87 = "llvm.inttoptr"(%86) : (i64) -> !llvm.ptr<1>
      "llvm.store"(%79, %87) <{ordering = 0 : i64}> : (f32, !llvm.ptr<1>) -> ()
      "llvm.br"()[^bb5] : () -> ()
    ^bb5:  // 2 preds: ^bb3, ^bb4
      %88 = "llvm.add"(%76, %23) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %89 = "llvm.trunc"(%88) <{overflowFlags = 0 : i32}> : (i64) -> i32
      %90 = "llvm.icmp"(%89, %arg8) <{predicate = 2 : i64}> : (i32, i32) -> i1
      "llvm.cond_br"(%90)[^bb6, ^bb7] <{operandSegmentSizes = array<i32: 1, 0, 0>}> : (i1) -> ()
    ^bb6:  // pred: ^bb5
      %91 = "llvm.extractelement"(%59, %23) : (vector<4xf32>, i64) -> f32
      %92 = "llvm.mul"(%88, %24) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %93 = "llvm.mul"(%49, %34) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %94 = "llvm.add"(%92, %93) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %95 = "llvm.add"(%94, %45) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %96 = "llvm.mul"(%95, %25) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %97 = "llvm.ptrtoint"(%arg7) : (!llvm.ptr<1>) -> i64
      %98 = "llvm.add"(%97, %96) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %99 = "llvm.inttoptr"(%98) : (i64) -> !llvm.ptr<1>
      "llvm.store"(%91, %99) <{ordering = 0 : i64}> : (f32, !llvm.ptr<1>) -> ()
      "llvm.br"()[^bb7] : () -> ()
    ^bb7:  // 2 preds: ^bb5, ^bb6
      %100 = "llvm.add"(%76, %22) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %101 = "llvm.trunc"(%100) <{overflowFlags = 0 : i32}> : (i64) -> i32
      %102 = "llvm.icmp"(%101, %arg8) <{predicate = 2 : i64}> : (i32, i32) -> i1
      "llvm.cond_br"(%102)[^bb8, ^bb9] <{operandSegmentSizes = array<i32: 1, 0, 0>}> : (i1) -> ()
    ^bb8:  // pred: ^bb7
      %103 = "llvm.extractelement"(%59, %22) : (vector<4xf32>, i64) -> f32
      %104 = "llvm.mul"(%100, %24) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %105 = "llvm.mul"(%49, %34) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %106 = "llvm.add"(%104, %105) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %107 = "llvm.add"(%106, %45) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %108 = "llvm.mul"(%107, %25) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %109 = "llvm.ptrtoint"(%arg7) : (!llvm.ptr<1>) -> i64
      %110 = "llvm.add"(%109, %108) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %111 = "llvm.inttoptr"(%110) : (i64) -> !llvm.ptr<1>
      "llvm.store"(%103, %111) <{ordering = 0 : i64}> : (f32, !llvm.ptr<1>) -> ()
      "llvm.br"()[^bb9] : () -> ()
    ^bb9:  // 2 preds: ^bb7, ^bb8
      %112 = "llvm.add"(%76, %21) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %113 = "llvm.trunc"(%112) <{overflowFlags = 0 : i32}> : (i64) -> i32
      %114 = "llvm.icmp"(%113, %arg8) <{predicate = 2 : i64}> : (i32, i32) -> i1
      "llvm.cond_br"(%114)[^bb10, ^bb11] <{operandSegmentSizes = array<i32: 1, 0, 0>}> : (i1) -> ()
    ^bb10:  // pred: ^bb9
      %115 = "llvm.extractelement"(%59, %21) : (vector<4xf32>, i64) -> f32
      %116 = "llvm.mul"(%112, %24) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %117 = "llvm.mul"(%49, %34) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %118 = "llvm.add"(%116, %117) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %119 = "llvm.add"(%118, %45) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %120 = "llvm.mul"(%119, %25) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %121 = "llvm.ptrtoint"(%arg7) : (!llvm.ptr<1>) -> i64
      %122 = "llvm.add"(%121, %120) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
      %123 = "llvm.inttoptr"(%122) : (i64) -> !llvm.ptr<1>
      "llvm.store"(%115, %123) <{ordering = 0 : i64}> : (f32, !llvm.ptr<1>) -> ()
      "llvm.br"()[^bb11] : () -> ()
    ^bb11:  // 2 preds: ^bb9, ^bb10
      "llvm.return"() : () -> ()
    }) {gpu.kernel, gpu.known_block_size = array<i32: 64, 1, 1>, rocdl.flat_work_group_size = "64,64", rocdl.kernel, rocdl.reqd_work_group_size = array<i32: 64, 1, 1>} : () -> ()
  }) {llvm.data_layout = "e-p:64:64-p1:64:64-p2:32:32-p3:32:32-p4:64:64-p5:32:32-p6:32:32-p7:160:256:256:32-p8:128:128:128:48-p9:192:256:256:32-i64:64-v16:16-v24:32-v32:32-v48:64-v96:128-v192:256-v256:256-v512:512-v1024:1024-v2048:2048-n32:64-S32-A5-G1-ni:7:8:9"} : () -> ()
  "llvm.func"() <{CConv = #llvm.cconv<ccc>, function_type = !llvm.func<void (ptr<1>, ptr<1>, ptr<1>, i32, ptr)>, linkage = #llvm.linkage<external>, sym_name = "launch", unnamed_addr = 0 : i64, visibility_ = 0 : i64}> ({
  ^bb0(%arg0: !llvm.ptr<1>, %arg1: !llvm.ptr<1>, %arg2: !llvm.ptr<1>, %arg3: i32, %arg4: !llvm.ptr):
    %0 = "llvm.mlir.constant"() <{value = -1 : i64}> : () -> i64
    %1 = "llvm.mlir.constant"() <{value = false}> : () -> i1
    %2 = "llvm.mlir.constant"() <{value = 0 : i64}> : () -> i64
    %3 = "llvm.mlir.constant"() <{value = 64 : index}> : () -> i64
    %4 = "llvm.mlir.constant"() <{value = 1 : index}> : () -> i64
    %5 = "llvm.mlir.constant"() <{value = 2 : index}> : () -> i64
    %6 = "llvm.mlir.constant"() <{value = 16 : i64}> : () -> i64
    %7 = "llvm.mlir.constant"() <{value = 15 : i64}> : () -> i64
    %8 = "llvm.sext"(%arg3) : (i32) -> i64
    %9 = "llvm.add"(%8, %7) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
    %10 = "llvm.sdiv"(%9, %6) : (i64, i64) -> i64
    %11 = "llvm.mul"(%10, %6) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
    %12 = "llvm.icmp"(%9, %11) <{predicate = 1 : i64}> : (i64, i64) -> i1
    %13 = "llvm.icmp"(%9, %2) <{predicate = 2 : i64}> : (i64, i64) -> i1
    %14 = "llvm.icmp"(%13, %1) <{predicate = 1 : i64}> : (i1, i1) -> i1
    %15 = "llvm.and"(%12, %14) : (i1, i1) -> i1
    %16 = "llvm.add"(%10, %0) <{overflowFlags = 0 : i32}> : (i64, i64) -> i64
    %17 = "llvm.select"(%15, %16, %10) <{fastmathFlags = #llvm.fastmath<none>}> : (i1, i64, i64) -> i64
    "gpu.launch_func"(%17, %5, %4, %3, %4, %4, %arg0, %arg1, %arg2, %arg3, %arg4) <{kernel = @kernels::@tiled_product_0, operandSegmentSizes = array<i32: 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 4, 1>}> : (i64, i64, i64, i64, i64, i64, !llvm.ptr<1>, !llvm.ptr<1>, !llvm.ptr<1>, i32, !llvm.ptr) -> ()
    "llvm.return"() : () -> ()
  }) {llvm.emit_c_interface} : () -> ()
}) {gpu.container_module} : () -> ()
